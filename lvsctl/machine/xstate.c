/* ptrace(2) for a User-Mode Linux that knows less of the processor's registers than the host.
 *
 * User-Mode Linux before 6.13 keeps 2,696 bytes of a process's extended registers (XSAVE).
 * Where the processor has more of them (AMX), the host refuses to set only a part
 * (arch/x86/kernel/fpu/regset.c, xstateregs_set: EFAULT), and the guest's first process dies.
 * This definition, loaded by LD_PRELOAD, adds the rest as it is. It needs no header file, so
 * that a small compiler is enough. See xstate.py.
 */
struct iovec {
    void *base;
    unsigned long size;
};

enum {
    SYS_ptrace = 101,
    PTRACE_PEEKUSER = 3,
    PTRACE_GETREGSET = 0x4204,
    PTRACE_SETREGSET = 0x4205,
    NT_X86_XSTATE = 0x202,
};

extern long syscall(long number, ...);
extern int *__errno_location(void);

long ptrace(long request, long pid, void *address, void *data)
{
    static char registers[65536]; /* the guest's kernel stacks are small, and it is one thread */
    struct iovec all = {registers, sizeof registers}, *known = data;
    long peeked, result;
    unsigned long i;

    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE &&
        syscall(SYS_ptrace, PTRACE_GETREGSET, pid, address, &all) == 0 && all.size > known->size) {
        for (i = 0; i < known->size; i++)
            registers[i] = ((char *)known->base)[i];
        return syscall(SYS_ptrace, request, pid, address, &all);
    }
    if (request < 1 || request > PTRACE_PEEKUSER)
        return syscall(SYS_ptrace, request, pid, address, data);
    result = syscall(SYS_ptrace, request, pid, address, &peeked); /* as the C library's, ptrace(2) */
    if (result < 0)
        return result;
    *__errno_location() = 0;
    return peeked;
}
