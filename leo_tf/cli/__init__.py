"""The command line: the only package with flags, tables and exit statuses."""
