/* `monolake-lua test`: runs busted with this program as the server under test. */
#ifndef SERVER_TEST_COMMAND_H
#define SERVER_TEST_COMMAND_H

/* Replaces this process by busted with these arguments; returns an exit code only on failure. */
int test_command(int argc, char **argv);

#endif
