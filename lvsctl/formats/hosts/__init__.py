"""Real hosts: the script that collects their state, its output as states, Ansible's inventory."""
