"""The demonstration: a live broadcast by phone call between real processes, shown, measured and judged.

`show` the plot, `actor` a running process and its events, `ladder` the call flow as it happened and its fourteen
steps, `outcome` what is printed and written. The judge of picture and sound is `dialcast.judge`.
"""
