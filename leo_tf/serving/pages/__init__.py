"""What people see of a server: the page that teaches a classifier, and the API page."""
