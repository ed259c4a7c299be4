/* Programs: started for the runner, watched, and ended. */
#ifndef RUN_H
#define RUN_H
#include <poll.h>
#include "frames.h"
enum { MAX_RUNS = 16, FDS_PER_RUN = 3 };
void run_start(uint32_t id, struct reader *body);
void run_stdin(uint32_t id, struct reader *body);
void run_signal(uint32_t id, struct reader *body);
/* Fills in what there is to wait for; MAX_RUNS * FDS_PER_RUN entries, -1 where nothing. */
void run_poll(struct pollfd *fds);
void run_serve(const struct pollfd *fds);
/* Some child has ended. */
void run_reap(void);
#endif
