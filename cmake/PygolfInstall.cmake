# cmake --install: headers, the static library and the package files behind find_package(pygolf).

include(CMakePackageConfigHelpers)
install(TARGETS pygolf_core EXPORT pygolf-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/csrc/include/pygolf DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT pygolf-targets NAMESPACE pygolf:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/pygolf)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/pygolf-config.cmake.in pygolf-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/pygolf)
write_basic_package_version_file(pygolf-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/pygolf-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/pygolf-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/pygolf)
