# Settings shared by every target: language level, warnings, sanitizers, and the search for a CUDA compiler.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

find_package(Threads REQUIRED)

# Warnings are errors for those who build the tests, not for a user whose compiler knows other warnings.
set(PYGOLF_WARNINGS -Wall -Wextra -Wpedantic -Wconversion)
if(PYGOLF_BUILD_TESTS)
  list(APPEND PYGOLF_WARNINGS -Werror)
endif()

function(pygolf_target name)
  target_compile_features(${name} PUBLIC cxx_std_20)
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON
                                           CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_compile_options(${name} PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:${PYGOLF_WARNINGS}>")
  if(PYGOLF_SANITIZE)
    target_compile_options(${name} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${PYGOLF_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g>)
    target_link_options(${name} PRIVATE -fsanitize=${PYGOLF_SANITIZE})
  endif()
endfunction()

# Sets PYGOLF_WITH_CUDA and enables the language. AUTO must not fail where no compiler is installed.
macro(pygolf_find_cuda)
  set(PYGOLF_WITH_CUDA OFF)
  if(NOT PYGOLF_CUDA STREQUAL "OFF")
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
      endif()
      enable_language(CUDA)
      find_package(CUDAToolkit REQUIRED)
      set(PYGOLF_WITH_CUDA ON)
    elseif(PYGOLF_CUDA STREQUAL "ON")
      message(FATAL_ERROR "PYGOLF_CUDA is ON but no CUDA compiler was found. Put nvcc on the PATH, "
                          "set CUDACXX, or configure with -DPYGOLF_CUDA=OFF.")
    endif()
  endif()
  message(STATUS "pygolf: CUDA kernels ${PYGOLF_WITH_CUDA}")
endmacro()
