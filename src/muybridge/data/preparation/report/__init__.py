"""An account of a prepared set as one page that needs no network and no script, and as JSON."""
