"""Reading weight files without running what they contain, renaming keys, loading without gaps. Knows no model."""
