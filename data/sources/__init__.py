"""Where rows come from: every source is a stream of lines of JSON."""
