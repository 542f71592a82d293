"""Results as text for the terminal, HTML pages, JSON, JUnit XML, shell scripts and reports."""
