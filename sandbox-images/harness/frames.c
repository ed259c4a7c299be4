#include "frames.h"
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

uint8_t take_u8(struct reader *r) {
  if (r->end - r->at < 1) return r->bad = 1, 0;
  return *r->at++;
}
uint16_t take_u16(struct reader *r) {
  uint16_t high = take_u8(r);
  return (uint16_t)(high << 8 | take_u8(r));
}
uint32_t take_u32(struct reader *r) {
  uint32_t high = take_u16(r);
  return high << 16 | take_u16(r);
}
uint64_t take_u64(struct reader *r) {
  uint64_t high = take_u32(r);
  return high << 32 | take_u32(r);
}
const char *take_string(struct reader *r) {
  const uint8_t *nul = r->at < r->end ? memchr(r->at, 0, (size_t)(r->end - r->at)) : NULL;
  if (nul == NULL) return r->bad = 1, "";
  const char *text = (const char *)r->at;
  r->at = nul + 1;
  return text;
}
void put_u32(uint8_t *to, uint32_t value) {
  for (int i = 3; i >= 0; i--, value >>= 8) to[i] = (uint8_t)value;
}
void put_u64(uint8_t *to, uint64_t value) {
  put_u32(to, (uint32_t)(value >> 32));
  put_u32(to + 4, (uint32_t)value);
}

void answer(uint8_t type, uint32_t id, const void *body, size_t length) {
  uint8_t head[9];
  put_u32(head, (uint32_t)(5 + length));
  head[4] = type;
  put_u32(head + 5, id);
  struct iovec parts[2] = {{head, sizeof head}, {(void *)body, length}};
  int first = 0;
  while (first < 2) {
    ssize_t wrote = writev(1, parts + first, 2 - first);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) die(0);
    while (first < 2 && (size_t)wrote >= parts[first].iov_len) wrote -= (ssize_t)parts[first++].iov_len;
    if (first < 2) {
      parts[first].iov_base = (char *)parts[first].iov_base + wrote;
      parts[first].iov_len -= (size_t)wrote;
    }
  }
}
void fail(uint32_t id, int error) {
  uint8_t body[4];
  put_u32(body, (uint32_t)error);
  answer(FAILED, id, body, sizeof body);
}
void die(int code) {
  _exit(code);
}
