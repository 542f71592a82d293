"""Ansible: a directory that one ``ansible-playbook`` applies to real directors and real servers."""
