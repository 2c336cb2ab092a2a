"""Real parts for tests and the demo: a PostgreSQL server, a throwaway installation, a comparison of two."""
