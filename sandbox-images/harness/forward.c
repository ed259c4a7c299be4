#define _GNU_SOURCE
#include "forward.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_PAIRS = 64, BUFFER = 16 << 10 };

/* One direction: from a socket, through a buffer, to another. */
struct flow {
  int from, to;
  size_t start, end;
  int over; /* nothing more comes */
  char buffer[BUFFER];
};
static struct pair {
  int near, far; /* -1: unused */
  struct flow out, back;
} *pairs[MAX_PAIRS];

static int listen_here(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(FORWARD_PORT)};
  here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int yes = 1;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0) return -1;
  if (bind(fd, (struct sockaddr *)&here, sizeof here) < 0 || listen(fd, 64) < 0) return -1;
  return fd;
}

static int connect_egress(void) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un there = {.sun_family = AF_UNIX, .sun_path = EGRESS_SOCKET};
  if (fd >= 0 && connect(fd, (struct sockaddr *)&there, sizeof there) < 0) close(fd), fd = -1;
  if (fd >= 0) fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static void open_pair(int near) {
  int far = -1;
  for (int i = 0; i < MAX_PAIRS; i++) {
    if (pairs[i] != NULL) continue;
    struct pair *pair = calloc(1, sizeof *pair);
    if (pair == NULL || (far = connect_egress()) < 0) {
      free(pair);
      break;
    }
    pair->near = near, pair->far = far;
    pair->out.from = pair->back.to = near;
    pair->out.to = pair->back.from = far;
    pairs[i] = pair;
    return;
  }
  close(near);
}

static short wants(const struct flow *flow, int fd) {
  short events = 0;
  if (fd == flow->from && !flow->over && flow->end < BUFFER) events |= POLLIN;
  if (fd == flow->to && flow->start < flow->end) events |= POLLOUT;
  return events;
}

/* False when the pair is broken. */
static int move(struct flow *flow) {
  if (!flow->over && flow->end < BUFFER) {
    ssize_t got = recv(flow->from, flow->buffer + flow->end, BUFFER - flow->end, MSG_DONTWAIT);
    if (got == 0) flow->over = 1;
    else if (got > 0) flow->end += (size_t)got;
    else if (errno != EAGAIN && errno != EINTR) return 0;
  }
  if (flow->start < flow->end) {
    ssize_t wrote = send(flow->to, flow->buffer + flow->start, flow->end - flow->start, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (wrote > 0) flow->start += (size_t)wrote;
    else if (wrote < 0 && errno != EAGAIN && errno != EINTR) return 0;
  }
  if (flow->start == flow->end) {
    flow->start = flow->end = 0;
    if (flow->over == 1) shutdown(flow->to, SHUT_WR), flow->over = 2;
  }
  return 1;
}

static void serve(int listener) {
  struct pollfd fds[1 + 2 * MAX_PAIRS];
  for (;;) {
    fds[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (int i = 0; i < MAX_PAIRS; i++) {
      struct pair *pair = pairs[i];
      for (int side = 0; side < 2; side++) {
        int fd = pair == NULL ? -1 : side == 0 ? pair->near : pair->far;
        short events = pair == NULL ? 0 : (short)(wants(&pair->out, fd) | wants(&pair->back, fd));
        /* A socket that is done in both directions would wake us for its hang-up for ever. */
        fds[1 + 2 * i + side] = (struct pollfd){.fd = events == 0 ? -1 : fd, .events = events};
      }
    }
    if (poll(fds, 1 + 2 * MAX_PAIRS, -1) < 0 && errno != EINTR) _exit(1);
    for (int i = 0; i < MAX_PAIRS; i++) {
      struct pair *pair = pairs[i];
      if (pair == NULL || !(fds[1 + 2 * i].revents || fds[2 + 2 * i].revents)) continue;
      if (move(&pair->out) && move(&pair->back) && !(pair->out.over == 2 && pair->back.over == 2)) continue;
      close(pair->near), close(pair->far);
      free(pair);
      pairs[i] = NULL;
    }
    if (fds[0].revents & POLLIN) {
      int near = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (near >= 0) open_pair(near);
    }
  }
}

void forward_start(void) {
  struct stat about;
  if (stat("/run/interlock", &about) < 0) return;
  int listener = listen_here();
  if (listener < 0) return;
  if (fork() == 0) {
    for (int fd = 0; fd < 3; fd++) close(fd);
    serve(listener);
  }
  close(listener);
}
