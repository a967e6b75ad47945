"""Results for people: tables, Markdown, figures."""
