"""Did thinking help: play, records, metrics, statistics, and the page."""
