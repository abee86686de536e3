/* --pid: the file that says which process the supervisor is. */
#ifndef SERVER_PID_FILE_H
#define SERVER_PID_FILE_H

#include <stdbool.h>

/* Writes this process's id. False, logged, if it cannot. */
bool pid_file_write(const char *path);

#endif
