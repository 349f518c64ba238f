"""What runs on a Spark already, found and written down as a fleet file."""
