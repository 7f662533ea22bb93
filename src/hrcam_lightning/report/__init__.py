"""``hrcam report``: a run, a comparison or predictions as one page that opens from disk."""
