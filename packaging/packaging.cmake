# What is installed, and the Debian package made of it (./dev deb).
set(MONOLAKE_DATA ${CMAKE_INSTALL_DATADIR}/monolake-lua)
set(MONOLAKE_DOC ${CMAKE_INSTALL_DATADIR}/doc/monolake-lua)

install(FILES include/monolake.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY lualib DESTINATION ${MONOLAKE_DATA})
# A plain LuaJIT (busted, a REPL) finds the library as well: core.so where C modules belong, and
# links where Lua modules belong.
install(TARGETS core LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/lua/5.1/monolake)
install(CODE [[
  set(modules "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/share/lua/5.1")
  file(MAKE_DIRECTORY ${modules})
  foreach(name monolake.lua monolake)
    file(CREATE_LINK ../../monolake-lua/lualib/${name} ${modules}/${name} SYMBOLIC)
  endforeach()
]])
# The package is one of /usr, whatever prefix this is built for, and Debian's LuaJIT looks for the C modules
# of /usr in the directory of the architecture only.
install(CODE "
  set(root \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}\")
  set(from \"${CMAKE_INSTALL_LIBDIR}/lua/5.1/monolake\")
  set(to \"lib/${CMAKE_LIBRARY_ARCHITECTURE}/lua/5.1/monolake\")
  if(CMAKE_INSTALL_PREFIX STREQUAL \"/usr\" AND NOT from STREQUAL to)
    file(MAKE_DIRECTORY \"\${root}/\${to}\")
    file(RENAME \"\${root}/\${from}/core.so\" \"\${root}/\${to}/core.so\")
    file(REMOVE_RECURSE \"\${root}/${CMAKE_INSTALL_LIBDIR}/lua\")
  endif()
")
install(DIRECTORY examples DESTINATION ${MONOLAKE_DOC})
install(FILES packaging/copyright README.md DESTINATION ${MONOLAKE_DOC})
install(FILES docs/api.md docs/from-nginx.md DESTINATION ${MONOLAKE_DOC}/docs)
install(FILES packaging/monolake-lua.service packaging/monolake-lua.socket
        DESTINATION lib/systemd/system)
install(FILES docs/monolake-lua.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME monolake-lua)
set(CPACK_PACKAGE_CONTACT "The monolake-lua authors <monolake-lua@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION httpd)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "lua-cjson")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "luajit2, lua-busted")
include(CPack)
