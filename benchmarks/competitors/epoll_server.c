/* A plain web server: one thread, one epoll loop, one answer per connection.
 *
 *     epoll_server PORT
 *
 * Prints "ready" once it listens, and serves until it is killed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
			     "Content-Length: 58\r\nConnection: close\r\n\r\n"
			     "rs1 answered on 10.10.0.100:80, request from 10.10.0.10:0\n";

int main(int count, char **words)
{
	if (count != 2)
		return fprintf(stderr, "epoll_server PORT\n"), 2;
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	int on = 1, queue = epoll_create1(EPOLL_CLOEXEC);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
	struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (void *)&here, sizeof here) || listen(listener, 4096) ||
	    epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event))
		return perror("listen"), 1;
	puts("ready");
	fflush(stdout);
	for (;;) {
		int found = epoll_wait(queue, events, 256, -1);
		for (int i = 0; i < found; i++) {
			int fd = events[i].data.fd;
			if (fd == listener) {
				int client;
				while ((client = accept4(listener, NULL, NULL,
							 SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
					event.events = EPOLLIN;
					event.data.fd = client;
					epoll_ctl(queue, EPOLL_CTL_ADD, client, &event);
				}
				continue;
			}
			char request[4096];
			ssize_t length = recv(fd, request, sizeof request - 1, 0);
			if (length < 0 && errno == EAGAIN)
				continue;
			if (length > 0) {
				request[length] = 0;
				if (!strstr(request, "\r\n\r\n")) /* ours fit one segment */
					continue;
				send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
			}
			close(fd);
		}
	}
}
