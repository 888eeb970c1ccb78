"""The kinds of tasks: rules that write them, and the templates that all writers share."""
