#include "server/control_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WAITING_MAX = 4096 }; /* some reloads that each replace all listeners */

struct queued_message {
    struct queued_message *next;
    enum control_kind kind;
    uint64_t value;
    int fd; /* owned; -1 if none */
    char text[];
};

static int append(struct control_queue *queue, enum control_kind kind, uint64_t value,
                  const char *text, int fd)
{
    size_t size = text ? strlen(text) + 1 : 1;
    if (queue->count == WAITING_MAX)
        return -ENOBUFS;
    struct queued_message *message = malloc(sizeof(*message) + size);
    if (!message)
        return -ENOMEM;
    *message = (struct queued_message){
        .kind = kind, .value = value, .fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0)};
    if (fd >= 0 && message->fd < 0) {
        int error = -errno;
        free(message);
        return error;
    }
    memcpy(message->text, text ? text : "", size);
    *(queue->last ? &queue->last->next : &queue->first) = message;
    queue->last = message;
    queue->count++;
    return 0;
}

static void drop_first(struct control_queue *queue)
{
    struct queued_message *message = queue->first;
    queue->first = message->next;
    if (!queue->first)
        queue->last = NULL;
    queue->count--;
    if (message->fd >= 0)
        close(message->fd);
    free(message);
}

int control_queue_send(struct control_queue *queue, int socket, enum control_kind kind,
                       uint64_t value, const char *text, int fd)
{
    int result = control_queue_waits(queue) ? -EAGAIN : control_send(socket, kind, value, text, fd);
    return result == -EAGAIN ? append(queue, kind, value, text, fd) : result;
}

bool control_queue_waits(const struct control_queue *queue)
{
    return queue->first != NULL;
}

int control_queue_flush(struct control_queue *queue, int socket)
{
    while (control_queue_waits(queue)) {
        const struct queued_message *message = queue->first;
        int result =
            control_send(socket, message->kind, message->value, message->text, message->fd);
        if (result < 0)
            return result == -EAGAIN ? 0 : result;
        drop_first(queue);
    }
    return 0;
}

void control_queue_clear(struct control_queue *queue)
{
    while (control_queue_waits(queue))
        drop_first(queue);
}
