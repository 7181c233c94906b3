"""Motion: calls travel through the chain, attempts travel to upstreams."""
