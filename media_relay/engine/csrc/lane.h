/* Sockets of their own for viewers whose packets found the shared one full: a slow path holds what it was given, and one
   that holds the whole of a group's buffer would stop all the others. A lane sends from the same port and takes nothing in:
   whatever comes to the port goes to the shared socket (socket(7), SO_REUSEPORT and SO_ATTACH_REUSEPORT_CBPF). */
#ifndef DIALCAST_LANE_H
#define DIALCAST_LANE_H

#include <stdbool.h>

/* Like the shared socket, and on its port; -1 where there is none to be had. */
int lane_open(int shared);
/* True when all that was given to it has left. */
bool lane_empty(int lane);

#endif
