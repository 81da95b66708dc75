"""Every test here runs over the state in Python, and over its compiled twin."""
