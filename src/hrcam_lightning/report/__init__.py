"""One page of a run or a comparison, to be read in any browser, without a network."""
