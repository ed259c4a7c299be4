/* Files of the workspace, for the runner. What is asked for is never followed out of it. */
#ifndef FILES_H
#define FILES_H
#include "frames.h"
void file_put(uint32_t id, struct reader *body);
void file_put_data(uint32_t id, struct reader *body);
void file_get(uint32_t id, struct reader *body);
void file_list(uint32_t id, struct reader *body);
#endif
