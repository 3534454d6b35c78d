"""The page of a sweep and the table that the command line prints."""
