#define _GNU_SOURCE
#include "files.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORKSPACE "/work"
enum { MAX_PUTS = 8, MAX_ENTRIES = 10000, MAX_PATH = 1024 };

/* One upload under way: written beside its place, and moved there when it is whole. */
static struct put {
  int used, file, directory;
  uint32_t id;
  char temporary[32], name[256];
} puts_[MAX_PUTS];

/* Opens the directory that holds the last part of a path below the workspace, and copies that part to `name` (256).
 * Part by part and without symbolic links, so that no program can turn the path round while it is walked. */
static int open_parent(const char *path, char *name, int make) {
  char copy[MAX_PATH];
  if (strlen(path) >= sizeof copy) return -ENAMETOOLONG;
  strcpy(copy, path);
  int at = open(WORKSPACE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (at < 0) return -errno;
  char *rest = copy;
  for (;;) {
    char *slash = strchr(rest, '/');
    if (slash != NULL) *slash = 0;
    if (*rest == 0 || strcmp(rest, ".") == 0 || strcmp(rest, "..") == 0 || strlen(rest) > 255)
      return close(at), -EINVAL;
    if (slash == NULL) return strcpy(name, rest), at;
    if (make) mkdirat(at, rest, 0755);
    int next = openat(at, rest, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int error = errno;
    close(at);
    if (next < 0) return -error;
    at = next;
    rest = slash + 1;
  }
}

static struct put *find_put(uint32_t id, int used) {
  for (int i = 0; i < MAX_PUTS; i++)
    if (puts_[i].used == used && (!used || puts_[i].id == id)) return &puts_[i];
  return NULL;
}

static void end_put(struct put *put, int error) {
  close(put->file);
  if (error == 0 && renameat(put->directory, put->temporary, put->directory, put->name) < 0) error = errno;
  if (error != 0) unlinkat(put->directory, put->temporary, 0);
  close(put->directory);
  put->used = 0;
  if (error != 0) fail(put->id, error);
  else answer(DONE, put->id, NULL, 0);
}

void file_put(uint32_t id, struct reader *body) {
  mode_t mode = take_u32(body) & 0777;
  const char *path = take_string(body);
  if (body->bad) die(2);
  struct put *put = find_put(0, 0);
  if (put == NULL) return fail(id, EMFILE);
  int directory = open_parent(path, put->name, 1);
  if (directory < 0) return fail(id, -directory);
  snprintf(put->temporary, sizeof put->temporary, ".upload-%08x", id);
  int file = openat(directory, put->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
  if (file < 0) {
    int error = errno;
    close(directory);
    return fail(id, error);
  }
  put->used = 1, put->id = id, put->file = file, put->directory = directory;
}

void file_put_data(uint32_t id, struct reader *body) {
  struct put *put = find_put(id, 1);
  if (put == NULL) return; /* it has failed, and that was said */
  size_t length = (size_t)(body->end - body->at);
  if (length == 0) return end_put(put, 0);
  while (length > 0) {
    ssize_t wrote = write(put->file, body->at, length);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return end_put(put, errno);
    body->at += wrote, length -= (size_t)wrote;
  }
}

void file_get(uint32_t id, struct reader *body) {
  uint64_t most = take_u64(body);
  const char *path = take_string(body);
  if (body->bad) die(2);
  char name[256];
  int directory = open_parent(path, name, 0);
  if (directory < 0) return fail(id, -directory);
  int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  int error = errno;
  close(directory);
  if (file < 0) return fail(id, error);
  struct stat about;
  if (fstat(file, &about) < 0 || !S_ISREG(about.st_mode)) return close(file), fail(id, EINVAL);
  uint64_t left = (uint64_t)about.st_size;
  if (left > most) return close(file), fail(id, EFBIG);
  static uint8_t chunk[CHUNK];
  while (left > 0) {
    ssize_t got = read(file, chunk, left < sizeof chunk ? left : sizeof chunk);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return close(file), fail(id, EIO); /* cut while it was read */
    answer(FILE_DATA, id, chunk, (size_t)got);
    left -= (uint64_t)got;
  }
  close(file);
  answer(DONE, id, NULL, 0);
}

static void send_entry(uint32_t id, int directory, const char *name) {
  struct stat about;
  if (fstatat(directory, name, &about, AT_SYMLINK_NOFOLLOW) < 0) return; /* gone meanwhile */
  uint8_t body[13 + 256];
  size_t length = strlen(name);
  if (length > 255) return;
  body[0] = S_ISREG(about.st_mode) ? 'f' : S_ISDIR(about.st_mode) ? 'd' : S_ISLNK(about.st_mode) ? 'l' : 'o';
  put_u32(body + 1, about.st_mode & 07777);
  put_u64(body + 5, (uint64_t)about.st_size);
  memcpy(body + 13, name, length);
  answer(ENTRY, id, body, 13 + length);
}

void file_list(uint32_t id, struct reader *body) {
  const char *path = take_string(body);
  if (body->bad) die(2);
  int at;
  if (*path == 0) {
    at = open(WORKSPACE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (at < 0) at = -errno;
  } else {
    char name[256];
    int parent = open_parent(path, name, 0);
    if (parent < 0) return fail(id, -parent);
    at = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (at < 0) at = -errno;
    close(parent);
  }
  if (at < 0) return fail(id, -at);
  DIR *directory = fdopendir(at);
  if (directory == NULL) return close(at), fail(id, ENOMEM);
  int entries = 0;
  for (struct dirent *entry; (entry = readdir(directory)) != NULL && entries < MAX_ENTRIES;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    send_entry(id, dirfd(directory), entry->d_name);
    entries++;
  }
  closedir(directory);
  if (entries == MAX_ENTRIES) fail(id, EOVERFLOW);
  else answer(DONE, id, NULL, 0);
}
