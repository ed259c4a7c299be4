/* Between programs that know HTTP_PROXY and the runner's egress proxy: TCP on the loopback to a Unix socket. */
#ifndef FORWARD_H
#define FORWARD_H
#define EGRESS_SOCKET "/run/interlock/egress.sock"
enum { FORWARD_PORT = 3128 };
/* In a process of its own. Does nothing where no socket can be mounted. */
void forward_start(void);
#endif
