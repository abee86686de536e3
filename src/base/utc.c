#include "base/utc.h"

enum {
    DAY_S = 86400,
    DAYS_BEFORE_1970 = 719468, /* since the first of March of the year 0 */
    DAYS_IN_4_YEARS = 1461,
    DAYS_IN_CENTURY = 36524,
    DAYS_IN_ERA = 146097, /* 400 years, after which all repeats */
};

/* Years begin in March here, so that a leap day is the last of its year, and the months' lengths
 * repeat every five months of 153 days. */
void utc_from_time(time_t time, struct tm *utc)
{
    long days = time / DAY_S + DAYS_BEFORE_1970;
    int second = (int)(time % DAY_S);
    int era = (int)(days / DAYS_IN_ERA);
    int day = (int)(days % DAYS_IN_ERA);
    int year =
        (day - day / (DAYS_IN_4_YEARS - 1) + day / DAYS_IN_CENTURY - day / (DAYS_IN_ERA - 1)) / 365;
    day -= 365 * year + year / 4 - year / 100;
    int month = (5 * day + 2) / 153; /* 0: March */
    utc->tm_mday = day - (153 * month + 2) / 5 + 1;
    utc->tm_mon = month < 10 ? month + 2 : month - 10;
    utc->tm_year = era * 400 + year + (month < 10 ? 0 : 1) - 1900;
    utc->tm_hour = second / 3600;
    utc->tm_min = second / 60 % 60;
    utc->tm_sec = second % 60;
}
