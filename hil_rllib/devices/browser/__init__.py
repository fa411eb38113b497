"""The operator's seat as a web page: see `device` for the runner's side, `server` for the page's."""
