"""Short memory: limits and cached answers, in this process or in Redis, with one promise for both."""
