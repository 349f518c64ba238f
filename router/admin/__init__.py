"""The admin side: API, authentication, dashboard."""
