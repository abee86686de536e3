/*
 * Writing to what may be read slowly, or not at all: a pipe to a collector of logs, a terminal, a
 * socket of the service manager. What it does not take at once is not written: whoever waited for
 * it would serve nobody meanwhile. Never suspends.
 */
#ifndef BASE_OUTPUT_H
#define BASE_OUTPUT_H

#include <stddef.h>
#include <sys/types.h>

struct output {
    int fd;
    enum {
        OUTPUT_PLAIN,  /* does not keep writers waiting: a file, or a description that is
                          non-blocking */
        OUTPUT_SHARED, /* a pipe or device that others have open too, who expect it to block */
        OUTPUT_SOCKET,
    } kind;
};

/* Standard output and error. */
extern struct output output_standard, output_error;

/* Has the two not wait; to be called before rights are given up, with which they were opened. Until
 * then, writes to them may wait. */
void output_open_standards(void);

/* An output of that descriptor, which stays the caller's. */
struct output output_of(int fd);

/* Another descriptor for the output, for as long as the caller likes; or a negative errno. */
int output_duplicate(const struct output *output);

/* Writes as much as is taken at once. Returns how much, or a negative errno: -EAGAIN if that is
 * nothing. */
ssize_t output_write(const struct output *output, const void *bytes, size_t len);

#endif
