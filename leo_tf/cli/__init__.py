"""The command line: the only place that knows of flags, tables and exit statuses."""
