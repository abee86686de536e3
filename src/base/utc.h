/* The calendar, without the lock that gmtime_r takes: may be called by a handler of a signal. */
#ifndef BASE_UTC_H
#define BASE_UTC_H

#include <time.h>

/* The date and the time of day of a time since 1970, in UTC; of *utc only year, month, day, hour,
 * minute and second are set, as gmtime_r does. */
void utc_from_time(time_t time, struct tm *utc);

#endif
