"""What the events and labels of a release say, without its signals.

tables  which recordings and participants have which table     counts  what is odd in them
floors  what labels alone score                                report  the table and the JSON
plot    the figure
"""
