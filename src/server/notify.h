/* What a service manager hears (sd_notify(3)); silent where there is none. */
#ifndef SERVER_NOTIFY_H
#define SERVER_NOTIFY_H

/* Sends lines such as "READY=1". Failures are ignored: nobody waits for them. */
void notify_send(const char *state);

/* "RELOADING=1" with the time that systemd wants to see beside it. */
void notify_reloading(void);

#endif
