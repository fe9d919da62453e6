"""What a run reports: report.json, report.html, record folders and the tables on the screen."""
