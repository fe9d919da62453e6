# The two extension modules. _core is pybind11 without torch; _ops is torch's stable ABI without pybind11,
# one binary for every torch >= 2.10 and every Python >= 3.11.

if(CMAKE_VERSION VERSION_LESS 3.26)
  message(FATAL_ERROR "The Python modules need CMake 3.26 or newer (Development.SABIModule), but this is "
                      "${CMAKE_VERSION}. 'pip install .' fetches a newer one by itself; for a build by hand "
                      "use 'pip install cmake', or leave the modules out with -DPYGOLF_BUILD_PYTHON=OFF.")
endif()
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module Development.SABIModule)
find_package(pybind11 CONFIG QUIET)
if(NOT pybind11_FOUND)
  execute_process(COMMAND ${Python_EXECUTABLE} -m pybind11 --cmakedir OUTPUT_VARIABLE pybind11_DIR
                  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  find_package(pybind11 CONFIG REQUIRED)
endif()

file(GLOB host_sources CONFIGURE_DEPENDS binding/host_*.cpp)
pybind11_add_module(_core MODULE ${host_sources})
pygolf_target(_core)
target_link_libraries(_core PRIVATE pygolf_core)

pygolf_find_cuda()
if(PYGOLF_WITH_CUDA)
  file(GLOB cuda_sources CONFIGURE_DEPENDS cuda/*.cu)
  add_library(pygolf_cuda STATIC ${cuda_sources})
  pygolf_target(pygolf_cuda)
  target_compile_features(pygolf_cuda PUBLIC cuda_std_20)
  target_include_directories(pygolf_cuda PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/cuda)
  target_link_libraries(pygolf_cuda PUBLIC pygolf_core PRIVATE CUDA::cudart_static)
endif()

# torch's headers: of the environment that runs this build, or the one PYGOLF_TORCH_DIR names.
if(DEFINED ENV{PYGOLF_TORCH_DIR})
  set(torch_dir $ENV{PYGOLF_TORCH_DIR})
else()
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
      "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
    OUTPUT_VARIABLE torch_dir OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endif()
if(NOT EXISTS ${torch_dir}/include/torch/csrc/stable/library.h)
  message(FATAL_ERROR "No torch >= 2.10 headers in '${torch_dir}'. Install torch>=2.10,<2.14 in the environment "
                      "that builds pygolf, or point PYGOLF_TORCH_DIR at an installed torch folder.")
endif()

file(GLOB ops_sources CONFIGURE_DEPENDS binding/torch_ops*.cpp)
Python_add_library(_ops MODULE USE_SABI 3.11 WITH_SOABI ${ops_sources})
pygolf_target(_ops)
target_include_directories(_ops SYSTEM PRIVATE ${torch_dir}/include)
target_compile_definitions(_ops PRIVATE TORCH_TARGET_VERSION=0x020a000000000000)
target_link_libraries(_ops PRIVATE pygolf_core)
# The names torch's loader must find, kept even though no symbol here refers to them directly; no RPATH:
# `import torch` has loaded them before.
target_link_directories(_ops PRIVATE ${torch_dir}/lib)
target_link_options(_ops PRIVATE -Wl,--no-as-needed)
target_link_libraries(_ops PRIVATE torch torch_cpu)
set_target_properties(_ops PROPERTIES SKIP_BUILD_RPATH ON)
if(PYGOLF_WITH_CUDA)
  target_compile_definitions(_ops PRIVATE PYGOLF_WITH_CUDA USE_CUDA)
  target_include_directories(_ops SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(_ops PRIVATE pygolf_cuda)
endif()

set_target_properties(_core _ops PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/pygolf)
install(TARGETS _core _ops LIBRARY DESTINATION pygolf)
# What loading an artifact needs in C++, so that an installed package can count its own code bytes.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/csrc/core ${PROJECT_SOURCE_DIR}/csrc/include
                  ${PROJECT_SOURCE_DIR}/csrc/binding ${PROJECT_SOURCE_DIR}/csrc/cuda DESTINATION pygolf/csrc)
