# Assertions that hold in every build.
#
# Owns: the way an engine that finds itself in an impossible state ends (it aborts and says where).
# Who may touch it: every room of relaycore.
# Never here: recovery. A Python `assert` in nogil code prints and returns 0, which its caller reads as success.

cdef extern from *:
    """
    #include <stdio.h>
    #include <stdlib.h>

    #ifndef RELAY_DEBUG
    #define RELAY_DEBUG 0
    #endif
    #ifndef RELAY_BUILD
    #define RELAY_BUILD "release"
    #endif

    #define RELAY_CHECK(condition)                                                                  \\
        do {                                                                                        \\
            if (__builtin_expect(!(condition), 0)) {                                                \\
                fprintf(stderr, "relaycore: %s:%d: cannot be: not (%s)\\n",                         \\
                        __FILE__, __LINE__, #condition);                                            \\
                abort();                                                                            \\
            }                                                                                       \\
        } while (0)
    """
    const bint RELAY_DEBUG          # the readiness sweep and other checks that cost time
    const char* RELAY_BUILD         # release | debug | asan | ubsan
    void RELAY_CHECK(bint condition) noexcept nogil
