"""What a run reports: report.json and the tables on the screen."""
