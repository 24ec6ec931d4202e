"""What a release is like: its tables without signals, and the electrodes in its caches.

tables  what the tables of one recording say          people    what participants.tsv says
counts  what is odd in a release                      floors    what labels alone score
report  the table and the JSON                        plot      the figure of an audit
quality flat, noisy and clipped electrodes            overview  the figure of a cache
"""
