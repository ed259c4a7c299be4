/* The frames between the runner and the harness: see ../PROTOCOL.md. All numbers are big-endian. */
#ifndef FRAMES_H
#define FRAMES_H
#include <stddef.h>
#include <stdint.h>

enum { PROTOCOL_VERSION = 1, MAX_REQUEST = 1 << 20, CHUNK = 32 << 10 };

enum request { RUN = 1, STDIN = 2, SIGNAL = 3, PUT = 4, PUT_DATA = 5, GET = 6, LIST = 7 };
enum answer { HELLO = 16, STDOUT = 17, STDERR = 18, EXIT = 19, FILE_DATA = 20, ENTRY = 21, DONE = 22, FAILED = 23 };

/* A request's body, read from front to back. Reading past its end sets `bad` and yields zeros. */
struct reader {
  const uint8_t *at, *end;
  int bad;
};
uint8_t take_u8(struct reader *r);
uint16_t take_u16(struct reader *r);
uint32_t take_u32(struct reader *r);
uint64_t take_u64(struct reader *r);
/* A string up to its NUL, which is part of the frame. */
const char *take_string(struct reader *r);

void put_u32(uint8_t *to, uint32_t value);
void put_u64(uint8_t *to, uint64_t value);

/* Writes one whole frame to the runner; ends the harness when it is gone. */
void answer(uint8_t type, uint32_t id, const void *body, size_t length);
void fail(uint32_t id, int error);
/* Our own end of the bargain broken, or the runner's: nothing sensible can follow. */
void die(int code);
#endif
