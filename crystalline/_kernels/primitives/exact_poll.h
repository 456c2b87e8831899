/* How a long primitive asks for Ctrl-C. */
#ifndef CL_EXACT_POLL_H
#define CL_EXACT_POLL_H

/* Asked every millisecond or so, from the thread that called; not 0: give up and return that.  It
 * is `poll` of bigint/interrupt.pyx, handed over because a table of primitives knows no Python. */
typedef int (*ExactPoll)(void);

#endif
