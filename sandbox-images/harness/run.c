#define _GNU_SOURCE
#include "run.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_QUEUED = 16 << 20, KEEP_OTHERS = 1 };

static struct run {
  int used, exited, status, keep_others;
  uint32_t id;
  pid_t pid;
  /* Our ends of the program's stdin, stdout and stderr; -1 once closed. */
  int in, out, err;
  uint8_t *queue; /* of what it has not read yet */
  size_t queued, sent;
  int no_more;
  struct rusage before;
} runs[MAX_RUNS];

static struct run *find_run(uint32_t id) {
  for (int i = 0; i < MAX_RUNS; i++)
    if (runs[i].used && runs[i].id == id) return &runs[i];
  return NULL;
}

static void close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

static uint64_t micros(struct timeval t) {
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec;
}

/* Its usage is that of all it left behind, once these are dead too. */
static void report_exit(struct run *run) {
  struct rusage now;
  getrusage(RUSAGE_CHILDREN, &now);
  uint8_t body[21];
  int signalled = WIFSIGNALED(run->status);
  body[0] = (uint8_t)signalled;
  put_u32(body + 1, (uint32_t)(signalled ? WTERMSIG(run->status) : WEXITSTATUS(run->status)));
  put_u64(body + 5, micros(now.ru_utime) + micros(now.ru_stime) - micros(run->before.ru_utime) - micros(run->before.ru_stime));
  put_u64(body + 13, (uint64_t)now.ru_maxrss * 1024);
  close_fd(&run->in), close_fd(&run->out), close_fd(&run->err);
  free(run->queue);
  run->queue = NULL;
  run->used = 0;
  answer(EXIT, run->id, body, sizeof body);
}

/* In the new process, between fork and exec. */
static void become(char **argv, char **envp, const int stdio[3], rlim_t cpu_seconds) {
  setsid();
  for (int fd = 0; fd < 3; fd++)
    if (dup2(stdio[fd], fd) < 0) _exit(125);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  struct rlimit cpu = {cpu_seconds, cpu_seconds + 1};
  if (cpu_seconds > 0 && setrlimit(RLIMIT_CPU, &cpu) < 0) _exit(125);
  /* When memory runs out, the program goes, not the harness. Its own /proc is ours only while we may be dumped. */
  prctl(PR_SET_DUMPABLE, 1);
  int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (score >= 0 && write(score, "1000", 4) < 0) { /* it is as likely as we are to be chosen then */
  }
  if (chdir("/work") < 0) _exit(125);
  execvpe(argv[0], argv, envp);
  int error = errno;
  dprintf(2, "%s: %s\n", argv[0], strerror(error));
  _exit(error == ENOENT ? 127 : 126);
}

static void strings(struct reader *body, char **to, int count) {
  for (int i = 0; i < count; i++) to[i] = (char *)take_string(body);
  to[count] = NULL;
}

void run_start(uint32_t id, struct reader *body) {
  uint8_t flags = take_u8(body);
  uint32_t cpu_seconds = take_u32(body);
  int argc = take_u16(body), envc = take_u16(body);
  static char *argv[1025], *envp[1025];
  if (argc < 1 || argc > 1024 || envc > 1024) die(2);
  strings(body, argv, argc);
  strings(body, envp, envc);
  if (body->bad || find_run(id) != NULL) die(2);
  struct run *run = NULL;
  for (int i = 0; i < MAX_RUNS && run == NULL; i++)
    if (!runs[i].used) run = &runs[i];
  if (run == NULL) return fail(id, EAGAIN);
  for (int i = 0; i < envc; i++)
    if (strncmp(envp[i], "PATH=", 5) == 0) setenv("PATH", envp[i] + 5, 1); /* where execvpe looks */
  int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
  pid_t pid = -1;
  if (pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0) {
    getrusage(RUSAGE_CHILDREN, &run->before);
    pid = fork();
    if (pid == 0) become(argv, envp, (const int[]){in[0], out[1], err[1]}, cpu_seconds);
  }
  int error = errno;
  close_fd(&in[0]), close_fd(&out[1]), close_fd(&err[1]);
  if (pid < 0) {
    close_fd(&in[1]), close_fd(&out[0]), close_fd(&err[0]);
    return fail(id, error);
  }
  fcntl(in[1], F_SETFL, O_NONBLOCK), fcntl(out[0], F_SETFL, O_NONBLOCK), fcntl(err[0], F_SETFL, O_NONBLOCK);
  struct rusage before = run->before;
  *run = (struct run){.used = 1, .id = id, .pid = pid, .in = in[1], .out = out[0], .err = err[0]};
  run->before = before;
  run->keep_others = flags & KEEP_OTHERS;
}

static void feed(struct run *run) {
  while (run->in >= 0 && run->sent < run->queued) {
    ssize_t wrote = write(run->in, run->queue + run->sent, run->queued - run->sent);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) return;
    if (wrote < 0) { /* it reads no more */
      close_fd(&run->in);
      break;
    }
    run->sent += (size_t)wrote;
  }
  free(run->queue);
  run->queue = NULL;
  run->queued = run->sent = 0;
  if (run->no_more) close_fd(&run->in);
}

void run_stdin(uint32_t id, struct reader *body) {
  struct run *run = find_run(id);
  if (run == NULL || run->in < 0) return;
  size_t length = (size_t)(body->end - body->at);
  if (length == 0) run->no_more = 1;
  if (run->queued + length > MAX_QUEUED) die(2);
  if (length > 0) {
    uint8_t *grown = realloc(run->queue, run->queued + length);
    if (grown == NULL) die(2);
    memcpy(grown + run->queued, body->at, length);
    run->queue = grown;
    run->queued += length;
  }
  feed(run);
}

void run_signal(uint32_t id, struct reader *body) {
  int number = take_u8(body);
  struct run *run = find_run(id);
  if (run != NULL && !run->exited && number < 65) kill(-run->pid, number);
}

/* Passes on what there is, up to one chunk a turn; to the end: until nobody can write any more, or nothing is there. */
static void relay(struct run *run, int *fd, uint8_t type, int to_end) {
  static uint8_t chunk[CHUNK];
  do {
    ssize_t got = *fd < 0 ? 0 : read(*fd, chunk, sizeof chunk);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return close_fd(fd);
    answer(type, run->id, chunk, (size_t)got);
  } while (to_end);
}

/* A call's sandbox ends with its program: what that left behind is killed, and only then is its end told. A session's
 * goes on; what holds the pipes there holds up nobody. */
static void finish(struct run *run) {
  if (!run->keep_others) {
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
    }
  }
  relay(run, &run->out, STDOUT, 1);
  relay(run, &run->err, STDERR, 1);
  report_exit(run);
}

void run_reap(void) {
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
    for (int i = 0; i < MAX_RUNS; i++)
      if (runs[i].used && runs[i].pid == pid) runs[i].exited = 1, runs[i].status = status;
  for (int i = 0; i < MAX_RUNS; i++)
    if (runs[i].used && runs[i].exited) finish(&runs[i]);
}

void run_poll(struct pollfd *fds) {
  for (int i = 0; i < MAX_RUNS; i++, fds += FDS_PER_RUN) {
    struct run *run = &runs[i];
    fds[0] = (struct pollfd){.fd = run->used && run->queued > run->sent ? run->in : -1, .events = POLLOUT};
    fds[1] = (struct pollfd){.fd = run->used ? run->out : -1, .events = POLLIN};
    fds[2] = (struct pollfd){.fd = run->used ? run->err : -1, .events = POLLIN};
  }
}

void run_serve(const struct pollfd *fds) {
  for (int i = 0; i < MAX_RUNS; i++, fds += FDS_PER_RUN) {
    struct run *run = &runs[i];
    if (!run->used) continue;
    if (fds[0].revents) feed(run);
    if (fds[1].revents) relay(run, &run->out, STDOUT, 0);
    if (fds[2].revents) relay(run, &run->err, STDERR, 0);
  }
}
