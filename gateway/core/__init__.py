"""The nouns: a Call goes in, a Reply comes out, a Receipt is left behind."""
