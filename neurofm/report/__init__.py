"""Pages and figures from plain tables, and progress bars."""
