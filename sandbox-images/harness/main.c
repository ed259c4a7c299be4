/* The first process of every sandbox: takes the runner's requests from stdin and answers on stdout, until stdin ends or
 * its time is over. As the first process it is out of reach of its programs' signals, and it reaps what they leave. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include "files.h"
#include "forward.h"
#include "frames.h"
#include "run.h"

static uint8_t input[4 + MAX_REQUEST];
static size_t have;

static void perform(uint8_t type, uint32_t id, struct reader *body) {
  switch (type) {
    case RUN: return run_start(id, body);
    case STDIN: return run_stdin(id, body);
    case SIGNAL: return run_signal(id, body);
    case PUT: return file_put(id, body);
    case PUT_DATA: return file_put_data(id, body);
    case GET: return file_get(id, body);
    case LIST: return file_list(id, body);
    default: die(2);
  }
}

static void read_requests(void) {
  ssize_t got = read(0, input + have, sizeof input - have);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (got <= 0) die(0); /* the runner is gone, and with us everything here goes */
  have += (size_t)got;
  size_t at = 0;
  while (have - at >= 4) {
    struct reader head = {input + at, input + have, 0};
    size_t length = take_u32(&head);
    if (length < 5 || length > MAX_REQUEST) die(2);
    if (have - at < 4 + length) break;
    struct reader body = {input + at + 4, input + at + 4 + length, 0};
    uint8_t type = take_u8(&body);
    uint32_t id = take_u32(&body);
    perform(type, id, &body);
    at += 4 + length;
  }
  memmove(input, input + at, have - at);
  have -= at;
}

static time_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_BOOTTIME, &t);
  return t.tv_sec;
}

int main(int argc, char **argv) {
  /* Nobody of our own user may look into us through /proc, or write to our streams there. */
  prctl(PR_SET_DUMPABLE, 0);
  signal(SIGPIPE, SIG_IGN);
  fcntl(0, F_SETFD, FD_CLOEXEC), fcntl(1, F_SETFD, FD_CLOEXEC), fcntl(2, F_SETFD, FD_CLOEXEC);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, NULL);
  int children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (children < 0) die(3);
  time_t end = now() + (argc > 1 ? atol(argv[1]) : 3600);
  forward_start();
  uint8_t version = PROTOCOL_VERSION;
  answer(HELLO, 0, &version, 1);
  struct pollfd fds[2 + MAX_RUNS * FDS_PER_RUN];
  for (;;) {
    time_t left = end - now();
    if (left <= 0) die(0);
    fds[0] = (struct pollfd){.fd = 0, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = children, .events = POLLIN};
    run_poll(fds + 2);
    if (poll(fds, sizeof fds / sizeof *fds, left > 3600 ? 3600000 : (int)left * 1000) < 0 && errno != EINTR) die(3);
    run_serve(fds + 2);
    if (fds[1].revents) {
      struct signalfd_siginfo info;
      while (read(children, &info, sizeof info) > 0) {
      }
      run_reap();
    }
    if (fds[0].revents) read_requests();
  }
}
