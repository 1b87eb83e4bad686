"""HTTP: handlers that parse a request, ask one service and answer; no paths, database or upstream here."""
